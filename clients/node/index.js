// A client of the advisor: calls, streams, TLS, tokens and errors with reasons.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { randomUUID } = require('node:crypto');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { ServiceError, serviceError } = require('./errors');
const { RunSession } = require('./session');

const PROTOS = path.join(__dirname, '..', '..', 'protos');
const SERVICES = ['advisor', 'audit', 'policy', 'profile', 'run', 'status'];
const LOADER = { keepCase: false, longs: Number, enums: String, bytes: Buffer, defaults: true };
const CHANNEL = {
  'grpc.keepalive_time_ms': 60_000, // the service permits more, also without calls
  'grpc.keepalive_timeout_ms': 20_000,
  'grpc.max_receive_message_length': -1,
  'grpc.service_config': JSON.stringify({
    loadBalancingConfig: [{ round_robin: {} }],
    methodConfig: [
      {
        name: SERVICES.map((name) => ({ service: serviceName(name) })),
        retryPolicy: {
          maxAttempts: 4,
          initialBackoff: '0.05s',
          maxBackoff: '1s',
          backoffMultiplier: 2,
          retryableStatusCodes: ['UNAVAILABLE'],
        },
      },
      // Sessions reconnect themselves.
      { name: [{ service: serviceName('advisor'), method: 'RecommendLR' }] },
    ],
  }),
};

function serviceName(name) {
  return `fslr.advisor.v1.${name[0].toUpperCase()}${name.slice(1)}Service`;
}

function isLoopback(address) {
  const host = address.replace(/^(dns:(\/\/[^/]*)?\/?|ipv[46]:)/, '').replace(/:\d+$/, '');
  return address.startsWith('unix:') || /^(localhost|127(\.\d+){3}|\[?::1\]?)$/.test(host);
}

/** A client of one advisor service; every method throws ServiceError. */
class AdvisorClient {
  constructor(address, options = {}) {
    const { token = process.env.FSLR_TOKEN || '', actor = '', deadlineMs = 10_000 } = options;
    const { ca = process.env.FSLR_TLS_CA, cert, key, allowInsecure = false } = options;
    if (token && !ca && !allowInsecure && !isLoopback(address)) {
      throw new TypeError(
        `the token would be sent to ${address} unencrypted; pass ca, the file of the advisor's ` +
          'certificate authority, or, in a trusted network, allowInsecure: true',
      );
    }
    this.address = address;
    this.deadlineMs = deadlineMs;
    this._metadata = new grpc.Metadata();
    if (token) this._metadata.set('authorization', `Bearer ${token}`);
    if (actor) this._metadata.set('fslr-actor', encodeURIComponent(actor));
    const read = (file) => (file ? fs.readFileSync(file) : null);
    const credentials = ca
      ? grpc.credentials.createSsl(read(ca), read(key), read(cert))
      : grpc.credentials.createInsecure();
    const files = SERVICES.map((name) => `fslr/advisor/v1/${name}_service.proto`);
    const definition = protoLoader.loadSync(files, { ...LOADER, includeDirs: [options.protos || PROTOS] });
    const { v1 } = grpc.loadPackageDefinition(definition).fslr.advisor;
    this._channel = new grpc.Channel(address, credentials, CHANNEL);
    this._services = {};
    for (const name of SERVICES) {
      const Service = v1[serviceName(name).split('.').pop()];
      this._services[name] = new Service(address, credentials, { channelOverride: this._channel });
    }
  }

  /** Return a session for a run; its stream opens with the first measurement. */
  openRun(opening) {
    const start = () => this._services.advisor.RecommendLR(this._metadata.clone());
    return new RunSession(start, opening, this.deadlineMs);
  }

  /** Return the answer to one measurement, without a stream. */
  recommendOnce(opening, measurement) {
    return this._unary('advisor', 'RecommendLROnce', { opening, measurement });
  }

  /** Return how a layout maps onto a profile, and why a run would be refused. */
  validateLayout({ profile, layout, policy, optimizer }) {
    return this._unary('profile', 'ValidateLayout', { name: profile, layout, policy, optimizer });
  }

  /** Store a profile; content that is already stored keeps its version. */
  registerProfile(name, content, requestId = randomUUID()) {
    return this._unary('profile', 'RegisterProfile', { name, content, requestId });
  }

  /** Return one version of a profile, with the profile's versions and aliases. */
  getProfile(name) {
    return this._unary('profile', 'GetProfile', { name });
  }

  /** Return a stored run. */
  getRun(name) {
    return this._unary('run', 'GetRun', { name });
  }

  /** Return the status of the service, and who it takes the caller for. */
  status() {
    return this._unary('status', 'GetStatus', {});
  }

  /** Close the connection. */
  close() {
    this._channel.close();
  }

  _unary(service, method, request) {
    const options = { deadline: Date.now() + this.deadlineMs };
    return new Promise((resolve, reject) => {
      this._services[service][method](request, this._metadata.clone(), options, (error, response) =>
        error ? reject(serviceError(error)) : resolve(response),
      );
    });
  }
}

module.exports = { AdvisorClient, RunSession, ServiceError };
