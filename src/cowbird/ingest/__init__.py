"""Files as people have them: what form they are in, told in one line, and their rows in bounded memory."""
