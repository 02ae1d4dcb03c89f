/** Clients of the Valtronics WebSocket API, for browsers and Node. */

export type Channel = 'telemetry' | 'alerts' | 'devices' | 'system';
export type Severity = 'info' | 'warning' | 'critical';
export type DeviceStatus = 'online' | 'offline' | 'warning';
export type Value = number | boolean | string;
type OneOrMore<T> = T | readonly T[];

/** What a subscription may say on every channel. */
interface Common {
    /** Whether the present state comes first, marked `snapshot`; true when left out. */
    snapshot?: boolean;
    /** Whether the server may pack several messages into one frame, which is unpacked here; true. */
    batch?: boolean;
}
interface Resumable {
    /** All events after this one first, instead of the present state. */
    since?: number;
    /** The log in which `since` counts. */
    log?: string;
}

/** Filters and options of each channel (WebSocket API, section 3). */
export interface Options {
    telemetry: Common & {
        device_id?: OneOrMore<number>;
        /** Names; a trailing `*` is a wildcard. */
        metrics?: OneOrMore<string>;
        /** `real-time`, or a period from `100ms` to `24h`: at most one message a period and device. */
        frequency?: string;
        /** Also readings that come late. */
        historical?: boolean;
    };
    alerts: Common &
        Resumable & {
            device_id?: OneOrMore<number>;
            severity?: OneOrMore<Severity>;
            alert_type?: OneOrMore<string>;
        };
    devices: Common &
        Resumable & {
            device_id?: OneOrMore<number>;
            status_types?: OneOrMore<DeviceStatus>;
        };
    system: Common & { metrics?: OneOrMore<string>; frequency?: string };
}

export interface TelemetryUpdate {
    type: 'telemetry_update';
    channel: 'telemetry';
    device_id: number;
    telemetry: Record<string, { value: Value; unit: string; timestamp: string; stale?: true }>;
    snapshot?: true;
    historical?: true;
}

export interface Alert {
    /** `alert` announces: a new one, or one that got worse. All else is an `alert_update`. */
    type: 'alert' | 'alert_update';
    channel: 'alerts';
    alert_id: number;
    device_id: number;
    severity: Severity;
    title: string;
    message: string;
    timestamp: string;
    metadata: {
        threshold_value: Value | null;
        actual_value: Value | null;
        metric: string | null;
        rule: string;
        [key: string]: unknown;
    };
    alert_type: string;
    status: 'active' | 'acknowledged' | 'shelved' | 'resolved';
    seq: number;
    snapshot?: true;
}

export interface DeviceStatusUpdate {
    type: 'device_status_update';
    channel: 'devices';
    device_id: number;
    old_status: DeviceStatus;
    new_status: DeviceStatus;
    timestamp: string;
    reason: string;
    metadata: { last_seen: string | null; [key: string]: unknown };
    seq: number;
    snapshot?: true;
}

export interface SystemStatusUpdate {
    type: 'system_status_update';
    channel: 'system';
    metrics: Record<string, number>;
    timestamp: string;
}

export interface Messages {
    telemetry: TelemetryUpdate;
    alerts: Alert;
    devices: DeviceStatusUpdate;
    system: SystemStatusUpdate;
}
export type Message = Messages[Channel];

export interface SubscribeResponse {
    type: 'subscribe_response';
    success: true;
    channel: Channel;
    /** What the server understood. */
    filters: Record<string, unknown>;
    /** The channel's last event at this moment. */
    seq?: number;
    log?: string;
    /** With `since`: whether all events after it follow; else the present state does. */
    resumed?: boolean;
}

export interface Pong {
    type: 'pong';
    timestamp: string;
    server_time: string;
}

export type ErrorCode =
    // The server's (WebSocket API, section 7).
    | 'invalid_json'
    | 'missing_type'
    | 'unknown_type'
    | 'invalid_message'
    | 'unknown_channel'
    | 'invalid_filter'
    | 'channel_not_available'
    | 'auth_required'
    | 'invalid_token'
    | 'forbidden'
    | 'rate_limited'
    | 'connection_limit'
    | 'subscription_limit'
    | 'message_too_large'
    | 'batch_too_large'
    | 'nested_batch'
    | 'internal'
    // This client's.
    | 'closed'
    | 'connection_lost'
    | 'overflow'
    | 'protocol_error'
    | 'replaced'
    | 'timeout';

/** Why a request, a subscription or the whole client came to nothing: a code and a sentence. */
export class ValtronicsError extends Error {
    readonly code: ErrorCode;
    /** The response that said no, if one did. */
    readonly response?: Record<string, unknown>;
    /** How the connection was closed, if that is why. */
    readonly closeCode?: number;
}

/**
 * One subscription, through all reconnects: after each one it goes on where it was (alerts, devices), or
 * with the present state (telemetry, and where the server no longer knows what was missed).
 *
 * At most 10,000 messages wait for a reader; beyond, it ends with `overflow`.
 */
export class Subscription<C extends Channel = Channel> implements AsyncIterable<Messages[C]> {
    private constructor();
    readonly channel: C;
    /** Resolves with the server's first response, rejects with a `ValtronicsError`. */
    readonly response: Promise<SubscribeResponse>;
    /** Up to which event everything has come, and in which log: to go on from in another process. */
    readonly since?: number;
    readonly log?: string;
    /** Whether it is over. */
    readonly ended: boolean;
    /** Resolves when nothing more comes. */
    unsubscribe(): Promise<void>;
    /** The messages, in order; for one reader. Leaving the loop unsubscribes. */
    [Symbol.asyncIterator](): AsyncGenerator<Messages[C], void, undefined>;
}

/**
 * A token, or how to get one: asked at each connect, when the token is about to expire (`expiring`), and
 * when the server has refused the last one (`refused`). Without a function a refused token is the end.
 */
export type Token = string | ((reason: 'connect' | 'expiring' | 'refused') => string | Promise<string>);

export interface ClientOptions {
    token: Token;
    /** How often to ask whether the connection lives, in milliseconds; 25,000. */
    heartbeat?: number;
    /** How long an answer may take before the connection is given up, in milliseconds; 20,000. */
    timeout?: number;
    /** How long to wait before coming back, in milliseconds: it doubles from `min` (500) to `max` (30,000). */
    backoff?: { min?: number; max?: number };
    /** For Node before 22. */
    WebSocket?: typeof WebSocket;
}

export type Status = 'connecting' | 'open' | 'waiting' | 'closed';

export interface ClientEvents {
    /** `error` says why it waits or closed, `delay` for how long it waits, in milliseconds. */
    status: CustomEvent<{ status: Status; error?: Error; delay?: number }>;
    /** A subscription was accepted, at first or after a reconnect; see `response.resumed`. */
    subscribed: CustomEvent<{ subscription: Subscription; response: SubscribeResponse }>;
    /** Any message, once, whoever reads it besides. */
    message: CustomEvent<Message>;
    /** This client reads too slowly: so many superseded updates were merged away. */
    lagged: CustomEvent<{ type: 'lagged'; channel: Channel; dropped: number }>;
    /** Something was refused, or could not be renewed; the client goes on. */
    error: CustomEvent<Error>;
}

/** A connection that is kept, until `close`, or until coming back would not help (status `closed`). */
export class Client extends EventTarget {
    constructor(url: string | URL, options: ClientOptions);
    readonly url: string;
    readonly status: Status;
    /** When the token expires, RFC 3339. */
    readonly expiresAt?: string;
    /**
     * Subscribes, now or as soon as there is a connection. Each message goes to `onMessage`, or waits to be
     * iterated over. A connection holds one subscription for each channel and device, or channel and all
     * devices: a newer one ends the older with `replaced`.
     */
    subscribe<C extends Channel>(
        channel: C,
        options?: Options[C],
        onMessage?: (message: Messages[C]) => void,
    ): Subscription<C>;
    /** Resolves when the server has answered, on this connection or a later one. */
    ping(): Promise<Pong>;
    /** Puts one line into the server's log. */
    reportError(error: unknown, data?: unknown): void;
    /** Ends the connection, all subscriptions and all timers. */
    close(): void;
    addEventListener<K extends keyof ClientEvents>(
        type: K,
        listener: (event: ClientEvents[K]) => void,
        options?: boolean | AddEventListenerOptions,
    ): void;
    addEventListener(
        type: string,
        listener: EventListenerOrEventListenerObject | null,
        options?: boolean | AddEventListenerOptions,
    ): void;
    removeEventListener<K extends keyof ClientEvents>(
        type: K,
        listener: (event: ClientEvents[K]) => void,
        options?: boolean | EventListenerOptions,
    ): void;
    removeEventListener(
        type: string,
        listener: EventListenerOrEventListenerObject | null,
        options?: boolean | EventListenerOptions,
    ): void;
}

/**
 * Opens a client, or shares the one that is open to this URL with this token (the same string or the
 * same function). It closes when everybody who got it has called `close`; calling it twice does no harm.
 */
export function connect(url: string | URL, options: ClientOptions): Client;
