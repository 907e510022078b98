"""Floor 0: tensors, files, algebra, erasers, composition and hosts. No database, network, clock or printing."""
