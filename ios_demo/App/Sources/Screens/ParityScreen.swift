/// Does this phone compute what the reference computes? The golden vectors, each budget green or red.

import ElirCore
import Foundation
import SwiftUI

struct ParityScreen: View {
    @ObservedObject var model: AppModel
    @State private var findings: [Finding] = []
    @State private var noise: Float?

    /// What a file made of the golden vectors, or why it could not.
    private struct Finding: Identifiable, Sendable {
        let artifact: Artifact
        let checks: [Parity.Check]
        let problem: String?

        var id: String { artifact.id }
    }

    var body: some View {
        NavigationStack {
            Form {
                ChoiceSection(model: model, choosesFile: false)
                if let bundle = model.bundle {
                    Section {
                        Button("Check every file") { check(bundle) }
                            .disabled(model.part != nil || !bundle.hasGolden)
                        if !bundle.hasGolden {
                            ProblemLabel(text: "\(bundle.id) has no golden vectors: write it again")
                        }
                    }
                }
                WorkSection(model: model)
                if let noise {
                    Section("Seeded noise") {
                        CheckRow(
                            title: "drawn here", value: "differs by \(String(format: "%.1e", noise))",
                            budget: "at most 1e-06", holds: noise <= 1e-6)
                    }
                }
                ForEach(findings) { finding in
                    Section("\(targetTitle(finding.artifact.target)) \(finding.artifact.precision)") {
                        if let problem = finding.problem { ProblemLabel(text: problem) }
                        ForEach(finding.checks) { check in
                            CheckRow(
                                title: check.output.rawValue, value: decibels(check.decibels),
                                budget: "at least \(decibels(check.budget.budgetDB)), host \(host(check.budget))",
                                holds: check.holds)
                        }
                    }
                }
            }
            .navigationTitle("Parity")
        }
    }

    private func check(_ bundle: ModelBundle) {
        let artifacts = bundle.artifacts.filter { Engine.targets.contains($0.target) }
        let (engine, units) = (model.engine, model.units)
        (findings, noise) = ([], nil)
        model.start("Checking files") { report in
            let difference = try noiseDifference(bundle)
            var found: [Finding] = []
            for (index, artifact) in artifacts.enumerated() {
                do {
                    let parity = try await engine.parity(of: artifact, in: bundle, units: units) { part in
                        report((Double(index) + part) / Double(artifacts.count))
                    }
                    found.append(Finding(artifact: artifact, checks: parity.checks, problem: nil))
                } catch let error as CancellationError {
                    throw error
                } catch {
                    found.append(Finding(artifact: artifact, checks: [], problem: error.localizedDescription))
                }
            }
            return (difference, found)
        } then: {
            (noise, findings) = $0
        }
    }

    private func decibels(_ value: Double) -> String {
        value == .infinity ? "exact" : "\(value.formatted(digits: 1)) dB"
    }

    private func host(_ budget: Budget) -> String { budget.hostDB.map(decibels) ?? "exact" }
}

/// A measured value and its budget, green or red, and said in words.
private struct CheckRow: View {
    let title: String
    let value: String
    let budget: String
    let holds: Bool

    var body: some View {
        HStack {
            Image(systemName: holds ? "checkmark.circle.fill" : "xmark.circle.fill")
                .foregroundStyle(holds ? Color.green : Color.red)
                .accessibilityLabel(holds ? "within budget" : "outside budget")
            VStack(alignment: .leading) {
                Text("\(title): \(value)")
                Text(budget).font(.footnote).foregroundStyle(.secondary)
            }
        }
    }
}
