"""Who holds which key: one subscription for each channel and device, or channel and "all devices"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .subscription import Message, Subscription


class Board:
    """The keys and their holders."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, Any], Subscription] = {}

    def __iter__(self) -> Iterator[Subscription]:
        """Gives each subscription once."""
        return iter(list(dict.fromkeys(self._holders.values())))

    def of(self, channel: str) -> list[Subscription]:
        """Returns each subscription of a channel once."""
        return [subscription for subscription in self if subscription.channel == channel]

    def put(self, subscription: Subscription) -> list[Subscription]:
        """Lets a subscription hold its keys; returns those that lost their last one by it."""
        replaced = []
        for device in [None] if subscription.devices is None else subscription.devices:
            replaced += self.release(subscription.channel, device)
            self._holders[subscription.channel, device] = subscription
        return replaced

    def release(self, channel: str, device: Any) -> list[Subscription]:
        """Takes a key from its holder; returns the holder, in a list, if that was its last one."""
        holder = self._holders.pop((channel, device), None)
        if holder is None:
            return []
        if holder.devices is not None:
            holder.devices = [held for held in holder.devices if held != device]
        return [] if holder.devices else [holder]

    def remove(self, subscription: Subscription) -> None:
        """Takes all its keys from a subscription."""
        kept = {key: holder for key, holder in self._holders.items() if holder is not subscription}
        self._holders = kept

    def holder_of(self, message: Message) -> Subscription | None:
        """Finds whom a message is for: for a device with a key of its own, that one alone counts."""
        channel = message.get("channel", "")
        for device in (message.get("device_id"), None):
            holder = self._holders.get((channel, device))
            if holder and holder.live:
                return holder
        return None
