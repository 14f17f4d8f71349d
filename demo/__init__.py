"""A hospital to try Zambezi with: its configuration, its neighbours and a play on the real protocols.

It stands outside the program, as tests do: nothing in the rooms imports it.
"""
