// A peer of bulk_bench: node bullmq.mjs worker | node bullmq.mjs client JOBS, which prints the seconds they took.
// BULLMQ is a folder with bullmq below its node_modules, REDIS_URL a database that may be emptied.
import { createRequire } from "module";

const { Queue, Worker } = createRequire(process.env.BULLMQ + "/package.json")("bullmq");
const url = new URL(process.env.REDIS_URL);
const connection = { host: url.hostname, port: +url.port, username: url.username || undefined,
  password: url.password || undefined, db: +url.pathname.slice(1), maxRetriesPerRequest: null };
const [role, count] = process.argv.slice(2);

async function end(queue, jobs) {
  while ((await queue.getCompletedCount()) < jobs) await new Promise((resolve) => setTimeout(resolve, 10));
}

async function add(queue, jobs) {
  for (let done = 0; done < jobs; done += 1000) {
    const some = Array.from({ length: Math.min(1000, jobs - done) }, (_, i) => ({ name: "echo", data: { value: done + i } }));
    await queue.addBulk(some);
  }
}

if (role === "worker") {
  new Worker("bench", async (job) => job.data.value, { connection, concurrency: 25 });
} else {
  const queue = new Queue("bench", { connection });
  await queue.obliterate({ force: true });
  await add(queue, 100);
  await end(queue, 100);
  const start = performance.now();
  await add(queue, +count);
  await end(queue, 100 + +count);
  console.log((performance.now() - start) / 1000);
  await queue.close();
}
