// Claims room for an instance and prints the final outcome:  node claim.mjs NODE [VCPUS [MEMORY_MIB]]
// The broker is NODELEDGER_AMQP_URL; the one package it needs is amqplib (npm install).
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import amqp from 'amqplib';

const SHARDS = Number(process.env.NODELEDGER_SHARDS ?? 16);
const COMMANDS = 'nodeledger.commands';
const DEADLINE_MS = 60_000;

// The shard of a node is the CRC-32 (as in zlib) of its UTF-8 name, modulo the number of shards.
function crc32(text) {
  let crc = ~0;
  for (const byte of Buffer.from(text, 'utf8')) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

// One attempt: publish, wait for the broker's confirm, then for the first answer that is not for the time being.
async function attempt(command) {
  const url = process.env.NODELEDGER_AMQP_URL ?? 'amqp://localhost';
  const connection = await amqp.connect(url);
  try {
    const lost = new Promise((_, reject) => connection.once('close', () => reject(new Error('connection lost'))));
    lost.catch(() => {}); // at the end it is closed on purpose
    connection.on('error', () => {}); // it is closed too, which is what counts
    const channel = await connection.createConfirmChannel();
    const { queue } = await channel.assertQueue('', { exclusive: true });
    const answered = new Promise((resolve, reject) => {
      channel.on('return', () => reject(new Error('no queue takes the command: nodeledger topology check')));
      channel.consume(queue, (message) => {
        const outcome = JSON.parse(message.content);
        if (outcome.command !== command.id) return;
        if (outcome.status === 'parked') console.error('parked: it waits for its hypervisor');
        else resolve(outcome);
      }, { noAck: true }).catch(reject);
    });
    answered.catch(() => {});
    const key = String(crc32(command.node) % SHARDS).padStart(2, '0');
    channel.publish(COMMANDS, key, Buffer.from(JSON.stringify(command)), {
      persistent: true, mandatory: true, contentType: 'application/json', replyTo: queue, correlationId: command.id,
      userId: decodeURIComponent(new URL(url).username) || undefined, // vouched for by the broker, for permission rules
    });
    return await Promise.race([Promise.all([channel.waitForConfirms(), answered]).then(([, one]) => one), lost]);
  } finally {
    await connection.close().catch(() => {});
  }
}

const [node, vcpus = '1', memory = '64'] = process.argv.slice(2);
const command = {
  version: 1, id: randomUUID(), kind: 'claim', node, issued_at: new Date().toISOString(), instance: randomUUID(),
  project: 'demo', resources: { vcpus: Number(vcpus), memory_mib: Number(memory) },
};
setTimeout(() => { console.error('no answer in time'); process.exit(2); }, DEADLINE_MS).unref();
for (let failures = 0; ; failures++) {
  try {
    const outcome = await attempt(command); // whenever in doubt, the same command again, with the same id
    console.log(JSON.stringify(outcome));
    process.exit(outcome.status === 'applied' ? 0 : 1);
  } catch (error) {
    console.error(error.message);
    await pause(Math.random() * Math.min(10_000, 100 * 2 ** failures));
  }
}
