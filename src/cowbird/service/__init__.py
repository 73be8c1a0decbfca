"""A scanner behind HTTP: titles are judged as they are uploaded, and every verdict is logged before it is answered."""
