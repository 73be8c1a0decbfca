"""What a spec may hold, told from the code: fields, examples, the reference page, the JSON schema and new specs."""
