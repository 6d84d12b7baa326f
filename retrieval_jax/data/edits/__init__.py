"""Public catalogues of edits ("the same but in red") in their own layouts: Fashion IQ, Fashion200k."""
