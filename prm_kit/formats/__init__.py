"""Foreign formats: one module each that reads rows into solutions and annotations and writes them back."""
