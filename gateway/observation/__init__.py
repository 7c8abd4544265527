"""What is known of a version's answers beyond their times: drift, agreement, accuracy."""
