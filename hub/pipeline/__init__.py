"""The path of an event: intake, dispatch, the five-attempt rule, the gateway, dead letters."""
