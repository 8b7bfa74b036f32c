"""Problems with a verifier: the embedded arithmetic task, problem files, and reasoning-gym, all through one door."""
