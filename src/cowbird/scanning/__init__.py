"""Scans of whole catalogues: rows in, a verdict on each title out, in bounded memory."""
