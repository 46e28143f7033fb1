"""The console: pages made on the server, a little script, no build step, nothing from the internet."""
