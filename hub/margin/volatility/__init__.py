"""How volatile a price is, and what margin makes of that. Rules V1 to V6 of docs/volatility.md.

Variances are per year of 365 days, volatilities their square roots. Nothing here reads a clock.
"""
