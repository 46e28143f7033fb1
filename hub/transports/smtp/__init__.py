"""SMTP: one message per request, by the standard library's `smtplib` and `email`."""
