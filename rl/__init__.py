"""Where step rewards become gradients: pure functions, and the compositions of them that papers name."""
