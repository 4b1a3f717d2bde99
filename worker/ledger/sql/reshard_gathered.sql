-- Notes that no message is left in the old queues.
UPDATE nodeledger.installation AS i SET gathered = true;
