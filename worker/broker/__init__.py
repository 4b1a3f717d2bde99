"""RabbitMQ: connection, topology, consuming, publishing, dead letters."""
