"""The observer: a process that looks at the values of answers, so that the gateway need not."""
