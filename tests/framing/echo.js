// Node's own server as a neighbour: answers each request with what it took for its target and its body.
const http = require('http');
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const text = `ECHO ${hex(`${request.method} ${request.url}`)} ${hex(Buffer.concat(pieces))} .`;
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length });
    response.end(text);
  });
});
server.keepAliveTimeout = 60000;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
