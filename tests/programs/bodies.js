// node bodies.js server|client PORT: keep-alive POSTs whose answers have the body's length.
const http = require('http');
const [, , role, port] = process.argv;
const COUNT = 2000;

if (role === 'server') {
  http.createServer((request, response) => {
    let length = 0;
    request.on('data', (data) => { length += data.length; });
    request.on('end', () => response.end(Buffer.alloc(length, 97)));
  }).listen(+port, '127.0.0.1');
} else {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  let done = 0;
  for (let i = 0; i < COUNT; i++) {
    const body = Buffer.alloc(1 + (i * 7919) % 30000, 97);
    const options = { port: +port, host: '127.0.0.1', method: 'POST', agent };
    const request = http.request(options, (response) => {
      let length = 0;
      response.on('data', (data) => { length += data.length; });
      response.on('end', () => {
        if (length !== body.length) process.exit(1);
        if (++done === COUNT) { console.log(`${done} ok`); process.exit(0); }
      });
    });
    request.end(body);
  }
}
