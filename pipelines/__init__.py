"""What a person runs: the command line, one module per verb, recipes."""
