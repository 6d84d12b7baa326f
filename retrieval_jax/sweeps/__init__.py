"""Sweeps: which runs a file of ranges asks for, the processes that run them, and the table that compares them."""
