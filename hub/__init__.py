"""Integration Hub: events in, reliable deliveries out.

Read the package in the order in which an event travels:

 1. `models`         what an event, a rule, a service, a task are
 2. `errors`         what can go wrong, as a tree
 3. `observer`       an event comes in: dedupe, match, write, commit, then enqueue
 4. `rules`          matching and rendering, pure
 5. `dispatch`       one attempt of one task
 6. `gateway`        breaker -> retry policy -> transport -> delivery record
 7. `breaker`        the circuit's transitions, pure
 8. `retry_policy`   the network tries within one attempt
 9. `transports`     REST, AMQP, SOAP: send once
10. `dead_letters`   after the fifth failure: keep, replay
11. `responses`      answers that services publish to response queues
12. `schedule`       the minute tick and what it runs

`store` keeps all of it in PostgreSQL, `tasks` runs it on Dramatiq, `app` puts it together.
"""

__version__ = "0.1.0"
