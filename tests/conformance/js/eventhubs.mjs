import {
  EventHubBufferedProducerClient,
  EventHubConsumerClient,
  EventHubProducerClient,
  earliestEventPosition,
  latestEventPosition,
} from "@azure/event-hubs";
import { failure, run } from "./checks.mjs";

const [connection, signed] = process.argv.slice(2);
const options = { retryOptions: { maxRetries: 0 } };
const producers = [];
const producerOf = (hub, more = {}) => {
  const producer = new EventHubProducerClient(connection, hub, { ...options, ...more });
  producers.push(producer);
  return producer;
};

// The switch is public on the buffered producer only, which sets it on its inner producer just like this.
const idempotentOf = (hub, partitionOptions) =>
  Object.assign(producerOf(hub), { _enableIdempotentRetries: true, _partitionOptions: partitionOptions });

// The first `count` events of partition 0, read from a position.
async function read(hub, count, startPosition, more = {}) {
  const client = new EventHubConsumerClient("$Default", connection, hub, options);
  const events = [];
  try {
    return await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`only ${events.length} events came`)), 5000).unref();
      const handlers = {
        processEvents: async (got, context) => {
          events.push(...got);
          if (events.length >= count) resolve(more.context ? [events, context] : events);
        },
        processError: async (error) => reject(error),
      };
      client.subscribe("0", handlers, { startPosition, ...more.subscribe });
    });
  } finally {
    await client.close();
  }
}

const bodies = (events) => events.map((event) => event.body);
const to0 = { partitionId: "0" };

await run({
  async sendAndRead() {
    const sent = { body: { k: [1, "x"] }, properties: { n: 1, s: "t" }, contentType: "application/json", messageId: "m", correlationId: "c" };
    await producerOf("send").sendBatch([sent], to0);
    const [event] = await read("send", 1, earliestEventPosition);
    const { body, properties, contentType, messageId, correlationId, sequenceNumber, offset } = event;
    const age = Date.now() - event.enqueuedTimeUtc;
    return { body, properties, contentType, messageId, correlationId, sequenceNumber, offset, fresh: age >= 0 && age < 60_000 };
  },
  async batches() {
    const producer = producerOf("batches");
    const batch = await producer.createBatch(to0);
    for (let n = 0; n < 500; n++) batch.tryAdd({ body: n });
    await producer.sendBatch(batch);
    const found = bodies(await read("batches", 500, earliestEventPosition));
    return { size: batch.maxSizeInBytes, ordered: found.every((body, n) => body === n) };
  },
  async partitionKeys() {
    const producer = producerOf("keys");
    for (const body of [1, 2]) await producer.sendBatch([{ body }], { partitionKey: "key" });
    const parts = await Promise.all((await producer.getPartitionIds()).map((id) => producer.getPartitionProperties(id)));
    return parts.map((part) => part.lastEnqueuedSequenceNumber + 1).filter((count) => count).length;
  },
  async positions() {
    await producerOf("positions").sendBatch([0, 1, 2, 3].map((body) => ({ body })), to0);
    const [, , third] = await read("positions", 3, earliestEventPosition);
    return {
      offset: bodies(await read("positions", 1, { offset: third.offset })),
      offsetInclusive: bodies(await read("positions", 2, { offset: third.offset, isInclusive: true })),
      sequence: bodies(await read("positions", 2, { sequenceNumber: 1 })),
      time: bodies(await read("positions", 4, { enqueuedOn: new Date(third.enqueuedTimeUtc - 1000) })),
    };
  },
  async latest() {
    const producer = producerOf("latest");
    await producer.sendBatch([{ body: "old" }], to0);
    const reading = read("latest", 1, latestEventPosition);
    await new Promise((resolve) => setTimeout(resolve, 700));
    await producer.sendBatch([{ body: "new" }], to0);
    return bodies(await reading);
  },
  async metrics() {
    await producerOf("metrics").sendBatch([{ body: 1 }, { body: 2 }], to0);
    const more = { context: true, subscribe: { trackLastEnqueuedEventProperties: true } };
    const [, context] = await read("metrics", 2, earliestEventPosition, more);
    const { sequenceNumber, offset } = context.lastEnqueuedEventProperties;
    return { sequenceNumber, offset };
  },
  async properties() {
    const producer = producerOf("properties");
    const { name, partitionIds } = await producer.getEventHubProperties();
    const { isEmpty, lastEnqueuedSequenceNumber, beginningSequenceNumber } = await producer.getPartitionProperties("1");
    return { name, partitionIds, isEmpty, lastEnqueuedSequenceNumber, beginningSequenceNumber };
  },
  async owners() {
    const weak = read("owners", 1, earliestEventPosition, { subscribe: { ownerLevel: 1 } });
    const lost = failure(weak);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const strong = read("owners", 1, earliestEventPosition, { subscribe: { ownerLevel: 2 } });
    const code = (await lost)?.code;
    const weaker = (await failure(read("owners", 1, earliestEventPosition, { subscribe: { ownerLevel: 1 } })))?.code;
    await producerOf("owners").sendBatch([{ body: "for the owner" }], to0);
    return { code, weaker, got: bodies(await strong) };
  },
  async idempotent() {
    const producer = idempotentOf("idempotent");
    for (const body of [1, 2]) await producer.sendBatch([{ body }, { body: 10 * body }], to0);
    const state = await producer.getPartitionPublishingProperties("0");
    const { ownerLevel, producerGroupId, lastPublishedSequenceNumber: startingSequenceNumber } = state;
    const again = idempotentOf("idempotent", { 0: { ownerLevel: ownerLevel + 1, producerGroupId, startingSequenceNumber } });
    await again.sendBatch([{ body: 3 }], to0);
    const stolen = (await failure(producer.sendBatch([{ body: 4 }], to0)))?.code;
    return { found: bodies(await read("idempotent", 5, earliestEventPosition)), stolen, last: startingSequenceNumber };
  },
  async buffered() {
    const client = new EventHubBufferedProducerClient(connection, "send", {
      ...options,
      enableIdempotentRetries: true,
      onSendEventsErrorHandler: async ({ error }) => console.error(error),
    });
    for (let n = 0; n < 100; n++) await client.enqueueEvent({ body: n }, { partitionId: "1" });
    await client.close();
    const part = await producerOf("send").getPartitionProperties("1");
    return part.lastEnqueuedSequenceNumber;
  },
  async large() {
    await producerOf("send").sendBatch([{ body: "x".repeat(200_000) }], { partitionId: "2" });
    return (await producerOf("send").getPartitionProperties("2")).lastEnqueuedSequenceNumber;
  },
  async signature() {
    const producer = new EventHubProducerClient(signed, "send", options);
    producers.push(producer);
    await producer.sendBatch([{ body: 1 }], { partitionId: "3" });
    return (await producer.getPartitionProperties("3")).lastEnqueuedSequenceNumber;
  },
  async close() {
    const client = new EventHubConsumerClient("$Default", connection, "send", options);
    const handlers = { processEvents: async () => {}, processError: async () => {} };
    client.subscribe(handlers, { startPosition: earliestEventPosition });
    await new Promise((resolve) => setTimeout(resolve, 500));
    const began = Date.now();
    await client.close();
    return Date.now() - began < 500;
  },
  async errors() {
    return {
      hub: (await failure(producerOf("absent").sendBatch([{ body: 1 }])))?.code,
      partition: (await failure(producerOf("errors").sendBatch([{ body: 1 }], { partitionId: "77" })))?.code,
      large: (await failure(producerOf("errors").sendBatch([{ body: "x".repeat(2_000_000) }])))?.code,
      key: (await failure(new EventHubProducerClient(connection.replace("SAS_KEY_VALUE", "d3Jvbmc="), "errors", options).sendBatch([{ body: 1 }])))?.code,
    };
  },
});
for (const producer of producers) await producer.close();
