"""The AMQP door: the service's dialect of AMQP 1.0 on the wire library (AMQP reference 1 to 3)."""
