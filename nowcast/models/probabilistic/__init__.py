"""The network that forecasts a probability distribution, and the cascade model that it starts from."""
