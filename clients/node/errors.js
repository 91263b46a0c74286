// From failed gRPC calls to errors with the service's stable reasons.
'use strict';

const { status } = require('@grpc/grpc-js');
const { proxyNote } = require('./proxies');

const DETAILS_KEY = 'grpc-status-details-bin';
const ERROR_INFO = 'type.googleapis.com/google.rpc.ErrorInfo';
const RETRY_INFO = 'type.googleapis.com/google.rpc.RetryInfo';

/** The advisor refused a call, or could not answer it. */
class ServiceError extends Error {
  constructor(message, { code, reason = '', metadata = {}, retryDelayMs = null }) {
    super(message);
    this.name = 'ServiceError';
    this.code = code; // a number of google.rpc.Code
    this.codeName = status[code];
    this.reason = reason; // such as PROFILE_NOT_FOUND; empty if the service was not reached
    this.metadata = metadata;
    this.retryDelayMs = retryDelayMs;
  }
}

/** Read one field after the other of an encoded message. */
function* fields(bytes) {
  let place = 0;
  const varint = () => {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = bytes[place++];
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 128;
    }
  };
  while (place < bytes.length) {
    const key = varint();
    const number = Math.floor(key / 8);
    switch (key % 8) {
      case 0:
        yield [number, varint()];
        break;
      case 2: {
        const length = varint();
        yield [number, bytes.subarray(place, place + length)];
        place += length;
        break;
      }
      default:
        return; // google.rpc.Status has no other kinds; leave the rest unread
    }
  }
}

/** Decode google.rpc.Status as far as reasons, metadata and delays go. */
function details(bytes) {
  const found = { reason: '', metadata: {}, retryDelayMs: null };
  for (const [number, value] of fields(bytes)) {
    if (number !== 3) continue;
    const any = Object.fromEntries(fields(value));
    const type = any[1] ? any[1].toString() : '';
    if (type === ERROR_INFO) {
      for (const [field, inner] of fields(any[2] || Buffer.alloc(0))) {
        if (field === 1) found.reason = inner.toString();
        if (field === 3) {
          const entry = Object.fromEntries(fields(inner));
          found.metadata[String(entry[1] ?? '')] = String(entry[2] ?? '');
        }
      }
    } else if (type === RETRY_INFO) {
      const delay = Object.fromEntries(fields(any[2] || Buffer.alloc(0)));
      const duration = Object.fromEntries(fields(delay[1] || Buffer.alloc(0)));
      found.retryDelayMs = (duration[1] || 0) * 1000 + (duration[2] || 0) / 1e6;
    }
  }
  return found;
}

/** Return the error to throw for a failed call of the advisor at an address. */
function serviceError(error, address) {
  if (error instanceof ServiceError) return error;
  const [bytes] = error.metadata ? error.metadata.get(DETAILS_KEY) : [];
  const found = Buffer.isBuffer(bytes) ? details(bytes) : {};
  const isUnanswered = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(error.code) && !found.reason;
  const message = (error.details || error.message) + (isUnanswered ? proxyNote(address) : '');
  return new ServiceError(message, { code: error.code, ...found });
}

module.exports = { ServiceError, serviceError };
