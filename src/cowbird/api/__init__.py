"""What `import cowbird` offers on top of the rooms below: experiments in a line, and the stealth of texts."""
