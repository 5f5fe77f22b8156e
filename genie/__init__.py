"""mini-genie: a playable world, learned from unlabelled CoinRun video (Genie, arXiv 2402.15391)."""
