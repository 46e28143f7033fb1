"""Servers and helpers of the tests. Nothing here touches a server that the tests were not given."""
