"""Inspection of models that somebody hands over: what was planted is looked for without knowing the trigger."""
