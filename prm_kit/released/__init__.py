"""Published PRMs, read natively: no remote code, no pickles. `load_prm` recognises the family and scores with it."""
