//! Prints the cases of the suite: the name, what it proves, and what it needs beyond the contract.

fn main() {
    for case in polybus_conformance::cases() {
        println!("{}\n    {}", case.name(), case.about());
        let needs: Vec<_> = case.needs().collect();
        if !needs.is_empty() {
            println!("    needs: {}", needs.join("; "));
        }
    }
    println!("{} cases", polybus_conformance::cases().count());
}
