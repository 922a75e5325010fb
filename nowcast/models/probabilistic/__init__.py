"""The network that forecasts a distribution, and the cascade that it starts from."""
