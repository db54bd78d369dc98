"""What the margin engine should show, in closed form. Rules T1 to T15 of docs/theory.md.

Floats: dimensionless fractions, dollars a unit, years of 365 days. Nothing here decides.
"""
