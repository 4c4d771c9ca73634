"""What sessions did: records, traces, pictures, explanations and reports. Nothing here changes a session."""
