import { ServiceBusClient } from "@azure/service-bus";
import { failure, run } from "./checks.mjs";

const [connection, signed] = process.argv.slice(2);
const options = { retryOptions: { maxRetries: 0 } };
const client = new ServiceBusClient(connection, options);
const wait = { maxWaitTimeInMs: 3000 };
const brief = { maxWaitTimeInMs: 300 };

async function filled(queue, ...messages) {
  const sender = client.createSender(queue);
  await sender.sendMessages(messages);
  return [client.createReceiver(queue), sender];
}

await run({
  async complete() {
    const [receiver] = await filled("complete", { body: { k: [1, "x"] }, subject: "s", applicationProperties: { n: 1 } });
    const [message] = await receiver.receiveMessages(1, wait);
    await receiver.completeMessage(message);
    const { body, subject, applicationProperties, deliveryCount } = message;
    const left = (await receiver.receiveMessages(1, brief)).length;
    return { body, subject, applicationProperties, deliveryCount, id: message.messageId.length, left };
  },
  async abandon() {
    const [receiver] = await filled("abandon", { body: "x" });
    for (let n = 0; n < 2; n++) await receiver.abandonMessage((await receiver.receiveMessages(1, wait))[0]);
    return (await receiver.receiveMessages(1, wait))[0].deliveryCount;
  },
  async defer() {
    const [receiver] = await filled("defer", { body: "later" });
    const [message] = await receiver.receiveMessages(1, wait);
    await receiver.deferMessage(message);
    const [again] = await receiver.receiveDeferredMessages(message.sequenceNumber);
    await receiver.completeMessage(again);
    const gone = await failure(receiver.receiveDeferredMessages(message.sequenceNumber));
    return { body: again.body, state: again.state, gone: gone.code };
  },
  async deadLetter() {
    const [receiver] = await filled("dead", { body: "bad" });
    const [message] = await receiver.receiveMessages(1, wait);
    await receiver.deadLetterMessage(message, { deadLetterReason: "why", deadLetterErrorDescription: "because" });
    const dead = client.createReceiver("dead", { subQueueType: "deadLetter", receiveMode: "receiveAndDelete" });
    const [found] = await dead.receiveMessages(1, wait);
    return [found.body, found.deadLetterReason, found.deadLetterErrorDescription, found.deadLetterSource];
  },
  async schedule() {
    const sender = client.createSender("schedule");
    const numbers = await sender.scheduleMessages([{ body: "a" }, { body: "b" }], new Date(Date.now() + 3600_000));
    const waiting = await client.createReceiver("schedule").peekMessages(5);
    await sender.cancelScheduledMessages(numbers);
    const twice = await failure(sender.cancelScheduledMessages(numbers));
    return { states: waiting.map((m) => m.state), twice: twice.code };
  },
  async renew() {
    const [receiver] = await filled("renew", { body: "x" });
    const [message] = await receiver.receiveMessages(1, wait);
    const before = message.lockedUntilUtc;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return (await receiver.renewMessageLock(message)) > before;
  },
  async drain() {
    const receiver = client.createReceiver("drain");
    const began = Date.now();
    const found = await receiver.receiveMessages(5, { maxWaitTimeInMs: 500 });
    return { count: found.length, quick: Date.now() - began < 700 };
  },
  async subscribe() {
    const bodies = Array.from({ length: 200 }, (_, n) => n);
    const [receiver] = await filled("subscribe", ...bodies.map((body) => ({ body })));
    const found = [];
    await new Promise((resolve, reject) => {
      const processMessage = async (message) => {
        found.push(message.body);
        if (found.length === bodies.length) resolve();
      };
      receiver.subscribe({ processMessage, processError: async ({ error }) => reject(error) }, { maxConcurrentCalls: 10 });
    });
    await receiver.close();
    const left = (await client.createReceiver("subscribe").receiveMessages(1, brief)).length;
    return { same: JSON.stringify(found) === JSON.stringify(bodies), left };
  },
  async thousands() {
    const sender = client.createSender("thousands");
    for (let first = 0; first < 12_000; first += 1000) {
      await sender.sendMessages(Array.from({ length: 1000 }, (_, n) => ({ body: first + n })));
    }
    const receiver = client.createReceiver("thousands");
    const found = new Set();
    let under_way = 0;
    let most = 0;
    await new Promise((resolve, reject) => {
      const processMessage = async (message) => {
        most = Math.max(most, ++under_way);
        await new Promise((done) => setTimeout(done, 20));
        under_way--;
        found.add(message.body);
        if (found.size === 12_000) resolve();
      };
      receiver.subscribe({ processMessage, processError: async ({ error }) => reject(error) }, { maxConcurrentCalls: 3000 });
    });
    await receiver.close();
    return { found: found.size, bounded: most <= 2048 };
  },
  async rules() {
    const manager = client.createRuleManager("topic", "some");
    await manager.createRule("big", { sqlExpression: "size > 5" }, { sqlExpression: "SET grown = 1" });
    await manager.createRule("blue", { subject: "s", applicationProperties: { color: "blue" } });
    await manager.deleteRule("$Default");
    const rules = [];
    for await (const rule of manager.listRules()) rules.push([rule.name, rule.filter.sqlExpression ?? rule.filter.subject]);
    const twice = await failure(manager.createRule("big", { sqlExpression: "1=1" }));
    await client.createSender("topic").sendMessages([
      { body: 1, applicationProperties: { size: 9 } },
      { body: 2, applicationProperties: { size: 1 } },
      { body: 3, subject: "s", applicationProperties: { color: "blue" } },
    ]);
    const receiver = client.createReceiver("topic", "some", { receiveMode: "receiveAndDelete" });
    const found = await receiver.receiveMessages(3, { maxWaitTimeInMs: 1500 });
    return { rules, twice: twice.code, found: found.map((m) => [m.body, m.applicationProperties]) };
  },
  async sessions() {
    const sender = client.createSender("sessions");
    await sender.sendMessages(["a", "b"].flatMap((sessionId) => [0, 1].map((n) => ({ body: `${sessionId}${n}`, sessionId }))));
    const receiver = await client.acceptSession("sessions", "a");
    const held = (await failure(client.acceptSession("sessions", "a"))).code;
    const next = await client.acceptNextSession("sessions");
    const hasty = new ServiceBusClient(connection, { retryOptions: { maxRetries: 0, timeoutInMs: 1500 } });
    const none = (await failure(hasty.acceptNextSession("sessions"))).code;
    await hasty.close();
    await receiver.setSessionState({ step: 2 });
    const before = receiver.sessionLockedUntilUtc;
    await new Promise((resolve) => setTimeout(resolve, 20));
    const found = await receiver.receiveMessages(2, wait);
    const [first, second] = found.map((message) => message.body);
    await receiver.deferMessage(found[0]);
    const [deferred] = await receiver.receiveDeferredMessages(found[0].sequenceNumber);
    await receiver.completeMessage(deferred);
    await receiver.completeMessage(found[1]);
    const renewed = (await receiver.renewSessionLock()) > before;
    const state = await receiver.getSessionState();
    await receiver.close();
    const again = await client.acceptSession("sessions", "a");
    const left = (await again.peekMessages(5)).length;
    return { held, next: next.sessionId, none, first, second, renewed, state, kept: await again.getSessionState(), left };
  },
  async signature() {
    const other = new ServiceBusClient(signed, options);
    await other.createSender("signature").sendMessages({ body: "signed" });
    const [message] = await other.createReceiver("signature", { receiveMode: "receiveAndDelete" }).receiveMessages(1, wait);
    await other.close();
    return message.body;
  },
  async changes() {
    const [receiver] = await filled("changes", { body: "x", applicationProperties: { n: 1, kept: "k" } }, { body: "y" });
    const [first, second] = await receiver.receiveMessages(2, wait);
    await receiver.abandonMessage(first, { n: 2, added: "a" });
    await receiver.deadLetterMessage(second, { deadLetterReason: "why", added: "b" });
    return (await receiver.peekMessages(1))[0].applicationProperties;
  },
  async errors() {
    const sender = client.createSender("errors");
    return {
      absent: (await failure(client.createReceiver("absent").receiveMessages(1, brief))).code,
      large: (await failure(sender.sendMessages({ body: "x".repeat(2_000_000) }))).code,
    };
  },
});
await client.close();
