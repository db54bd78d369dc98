"""What an account must hold, given what is known about it and how old that is."""
