"""European options, settled in dollars: what they are worth and how that moves."""
