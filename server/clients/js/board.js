// Who holds which key: one subscription for each channel and device, or channel and "all devices".

const keyOf = (channel, device) => `${channel}/${device ?? '*'}`;

export class Board {
  #holders = new Map();

  /** Each subscription once. */
  [Symbol.iterator]() {
    return new Set(this.#holders.values()).values();
  }

  /** Each subscription of a channel once. */
  of(channel) {
    return [...this].filter((subscription) => subscription.channel === channel);
  }

  /** Lets a subscription hold its keys; returns those that lost their last one by it. */
  put(subscription) {
    const replaced = [];
    for (const device of subscription.devices ?? [undefined]) {
      replaced.push(...this.release(subscription.channel, device));
      this.#holders.set(keyOf(subscription.channel, device), subscription);
    }
    return replaced;
  }

  /** Takes a key from its holder; returns the holder, in an array, if that was its last one. */
  release(channel, device) {
    const key = keyOf(channel, device);
    const holder = this.#holders.get(key);
    this.#holders.delete(key);
    holder?.devices?.delete(device);
    return holder && !holder.devices?.size ? [holder] : [];
  }

  /** Takes all its keys from a subscription. */
  remove(subscription) {
    for (const [key, holder] of this.#holders) {
      if (holder === subscription) this.#holders.delete(key);
    }
  }

  /** Finds whom a message is for: for a device with a key of its own, that subscription alone counts. */
  holderOf({ channel, device_id }) {
    const holders = [keyOf(channel, device_id), keyOf(channel)].map((key) => this.#holders.get(key));
    return holders.find((holder) => holder?.live);
  }
}
