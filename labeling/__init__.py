"""Where step labels come from."""
