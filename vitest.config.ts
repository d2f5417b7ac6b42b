import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // PGlite and ONNX Runtime are heavy; two files at a time is what a small machine carries.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    globalSetup: ["test/database-template.ts"],
    reporters: ["default", "./test/closing-line-reporter.ts"],
  },
});
