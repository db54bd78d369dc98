"""`omnimargin volatility`: forecasts on recorded prices, and the margin that they make."""
