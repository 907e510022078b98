"""What a model is, signed, and in the words of other inventories: in-toto, CycloneDX, SPDX."""
