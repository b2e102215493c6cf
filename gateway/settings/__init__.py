"""What an operator may choose of a gateway, by what it is about; `gateway/config.py` has all."""
