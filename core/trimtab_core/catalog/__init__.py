"""Facts that Trimtab starts from: accelerators, dated list prices, and what a replica can probably carry."""
