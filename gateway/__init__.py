"""The gateway process: one asyncio loop between robots' calls and worker processes. Holds no inference runtime."""
