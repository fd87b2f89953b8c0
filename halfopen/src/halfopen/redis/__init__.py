from halfopen.redis.circuits import Figures, RedisCircuits
from halfopen.redis.link import Link, LinkLost

__all__ = ["Figures", "Link", "LinkLost", "RedisCircuits"]
